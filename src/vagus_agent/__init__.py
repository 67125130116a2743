"""The device side: keys, enrolment, renewal, connection; knows nothing of the server's insides."""
