"""Where in its images a trained model's answer comes from: relevance maps, and how far each can be relied on."""
