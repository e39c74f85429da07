# What the image debian-12-node has beyond debian-12: Debian's node, for actions in JavaScript. Read
# with `.` by the build.sh of debian-12.
recipe=debian-12-node
more_packages=,nodejs
