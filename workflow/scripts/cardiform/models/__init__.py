"""Networks. They know torch and nothing of files, cases or training loops."""
