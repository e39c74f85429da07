echo "post"
