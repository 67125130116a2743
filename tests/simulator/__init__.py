"""One hospital group and its makers for every test: in memory, over sockets, or as processes of their own."""
