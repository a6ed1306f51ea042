"""Wrong without a word: what independent trials found, measured."""
