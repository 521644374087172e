# Compiles for aarch64 Linux with Debian's cross compilers (gcc-aarch64-linux-gnu and
# g++-aarch64-linux-gnu); tests run in qemu-user, if it is installed.
#
#   cmake -S . -B build/aarch64 --toolchain cmake/aarch64-linux-gnu.cmake -DROPEWALK_HIP=off
#         -DCMAKE_FIND_ROOT_PATH=<the prefix of libraries for aarch64>
#
# jansson (for libropewalk-io and the program) and cmocka (for tests) are those of that prefix or
# packages for arm64 of this system; never those of the host. ci/test compiles them.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
# try_compile() reads this file in the same process, without CMAKE_FIND_ROOT_PATH.
get_property(trying GLOBAL PROPERTY IN_TRY_COMPILE)
if(NOT trying)
  set(folders /usr/lib/aarch64-linux-gnu/pkgconfig)
  foreach(prefix IN LISTS CMAKE_FIND_ROOT_PATH)
    string(PREPEND folders ${prefix}/lib/pkgconfig:)
  endforeach()
  set(ENV{PKG_CONFIG_LIBDIR} ${folders})
endif()

# -L: the folder of the dynamic linker and the C library.
find_program(ROPEWALK_QEMU NAMES qemu-aarch64 qemu-aarch64-static)
if(ROPEWALK_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${ROPEWALK_QEMU} -L /usr/aarch64-linux-gnu)
endif()
