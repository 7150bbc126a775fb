#!/bin/sh
# Install Debian's GL libraries for headless rendering where they are missing and we may; otherwise name them.
# Usage: setup_gl.sh PYTHON
packages="libegl1 libgl1 libosmesa6 libglib2.0-0"
if "$1" -c "import cv2; from Enviroment.Renderer import choose_gl_backend; choose_gl_backend()" 2>/dev/null; then
  exit 0
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
  sudo="sudo -n"
  if ! $sudo true 2>/dev/null; then
    echo "GL libraries are missing; ask an administrator for: apt-get install $packages" >&2
    exit 1
  fi
fi
if ! command -v apt-get >/dev/null; then
  echo "GL libraries are missing; install what Debian calls: $packages" >&2
  exit 1
fi
$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq $packages >/dev/null
