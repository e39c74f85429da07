tr '\0' '\n' < "/proc/$NODE/environ" | grep '^INPUT_' | LC_ALL=C sort
