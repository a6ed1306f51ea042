"""What lies in the BIDS and DICOM folders of a site, and whether it can be used."""
