"""Photos as they come from cameras, phones and shops: which are read, and what each becomes."""
