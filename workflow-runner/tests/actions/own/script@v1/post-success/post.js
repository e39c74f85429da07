echo "post on success"
