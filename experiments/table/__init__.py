"""What is shown: accuracy, intervals and tests, as Markdown, JSON and charts."""
