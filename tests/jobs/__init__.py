"""Tests of periodic and durable jobs."""
