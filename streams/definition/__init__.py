"""What a pipeline file says, and what it comes to once it is held against its schemas."""
