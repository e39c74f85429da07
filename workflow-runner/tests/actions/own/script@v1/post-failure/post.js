echo "post on failure"
