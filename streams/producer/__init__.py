"""For those who publish: events checked, keyed and framed as a pipeline reads them."""
