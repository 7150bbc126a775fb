"""What runs left in their folders: read, named, compared, drawn."""
