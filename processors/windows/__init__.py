"""Windows of one rule over one partition: kinds, the close rule, what is held in memory."""
