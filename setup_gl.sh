#!/bin/sh
# Install Debian's GL libraries for headless rendering where they are missing and we may; otherwise name them.
# Usage: setup_gl.sh PYTHON
packages="libegl1 libgl1 libosmesa6 libglib2.0-0"
usable() { "$1" -c "import cv2; from Enviroment.GL import choose_gl_backend as choose; choose()" >/dev/null 2>&1; }

usable "$1" && exit 0
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo -n"
if ! command -v apt-get >/dev/null || { [ -n "$sudo" ] && ! $sudo true 2>/dev/null; }; then
  echo "No OpenGL to render frames with; install the Debian packages $packages and run make again" >&2
  exit 1
fi
echo "installing $packages"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq $packages >/dev/null
if ! usable "$1"; then
  echo "$packages are installed, and still nothing renders; this says why:" >&2
  "$1" -c "import cv2; from Enviroment.GL import choose_gl_backend as choose; print(choose())"
fi
