echo "post [$LATE]"
case $PATH in
  /added:*) echo "with the path" ;;
esac
