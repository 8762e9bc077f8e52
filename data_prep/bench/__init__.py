"""What the sources cost: rows a second, processor time, disk and memory, on made-up inputs of their formats."""
