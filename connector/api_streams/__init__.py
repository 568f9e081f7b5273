"""Routes of the data listener for data without an end, beside those of `api/data_api.py` and `api/metering_api.py`."""
