"""Models at work: reading photos, writing predictions, exporting."""
