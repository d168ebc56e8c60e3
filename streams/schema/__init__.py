"""What a schema means to the pipelines that read it, before anything is registered."""
