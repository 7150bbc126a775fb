#!/bin/sh
# Install Debian's GL libraries for headless rendering where they are missing and we may; otherwise name them.
# Usage: setup_gl.sh PYTHON
packages="libegl1 libgl1 libglib2.0-0"
usable() { "$1" -c "import cv2; from Enviroment.GL import choose_gl_backend as choose; choose()" 2>&1; }
install() { DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@" >/dev/null; }

usable "$1" >/dev/null && exit 0
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo -n"
if ! command -v apt-get >/dev/null || { [ -n "$sudo" ] && ! $sudo true 2>/dev/null; }; then
  echo "No OpenGL to render frames with; install the Debian packages $packages and run make again" >&2
  exit 1
fi
echo "installing $packages"
$sudo apt-get update -qq
if ! install $packages; then
  echo "apt-get cannot install $packages; its reason is above" >&2
  exit 1
fi
usable "$1" >/dev/null && exit 0
install libosmesa6 2>/dev/null # for drivers without EGL; newer Mesa does not have it
if ! reason=$(usable "$1"); then
  echo "$packages are installed, and still nothing renders: $(echo "$reason" | tail -n 1)" >&2
  exit 1
fi
