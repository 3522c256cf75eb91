"""What the tests share: models with closed-form answers, statistics, and data in memory."""
