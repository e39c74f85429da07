echo "post always"
