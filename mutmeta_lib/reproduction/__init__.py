"""What is special to the paper and to the public repository: released files, protocol, audit."""
