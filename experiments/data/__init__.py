"""Where product photos come from: each file one kind of data set, all of them `ProductDataset`s."""
