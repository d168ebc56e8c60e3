"""The same features over history: tables, files and topics, by the steps that a worker takes."""
