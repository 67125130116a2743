"""SQL: tables, one writer, the sequences; no rule of the field lives here."""
