echo "::save-state name=word::by a command"
