echo "by sh"
