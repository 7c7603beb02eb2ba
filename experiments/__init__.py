"""The whole finetuning experiment of the paper: data, matching, training and the table."""
