"""State as files and namespaces: listed, dropped, snapshot and rebuilt."""
