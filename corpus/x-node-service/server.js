# stands for a server
