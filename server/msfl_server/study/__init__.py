"""The coordinator's study folder: settings, certificates, sites, joining kits."""
