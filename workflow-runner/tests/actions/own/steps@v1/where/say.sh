echo "a script of the action"
