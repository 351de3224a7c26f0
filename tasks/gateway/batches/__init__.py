"""Files and batches: OpenAI's ``/v1/files`` and ``/v1/batches`` on bulk jobs. Everything is in one folder that gateways share."""
