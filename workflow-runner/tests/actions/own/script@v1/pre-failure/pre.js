echo "pre on failure"
