echo "pre on success"
