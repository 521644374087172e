# Installation: libraries and modules in one folder, headers, pkg-config files, CMake package. They
# find the other files relative to their own location, so that `cmake --install --prefix` may set
# the prefix and the folder may be moved.
#
# An absolute CMAKE_INSTALL_LIBDIR is outside the prefix, which is then known only at installation:
# the files below contain @CMAKE_INSTALL_PREFIX@ until the installation replaces it.
install(TARGETS ropewalk EXPORT ropewalk-targets)
if(ROPEWALK_IO)
  install(TARGETS ropewalk-io EXPORT ropewalk-io-targets)
  install(EXPORT ropewalk-io-targets NAMESPACE ropewalk::
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/ropewalk)
  install(DIRECTORY include/ropewalk DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
else()
  install(DIRECTORY include/ropewalk DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
          PATTERN io.h EXCLUDE)
endif()
install(EXPORT ropewalk-targets NAMESPACE ropewalk::
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/ropewalk)

# A folder in the syntax of the pkg-config file: absolute paths unchanged, others below the prefix.
function(ropewalk_pc_folder variable folder)
  if(NOT IS_ABSOLUTE "${folder}")
    string(PREPEND folder "\${prefix}/")
  endif()
  set(${variable} "${folder}" PARENT_SCOPE)
endfunction()

# Installs a file of the build folder.
function(ropewalk_install_found name folder)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
    set(filled "${PROJECT_BINARY_DIR}/filled/${name}")
    install(CODE "configure_file([[${PROJECT_BINARY_DIR}/${name}]] [[${filled}]] @ONLY)")
    install(FILES "${filled}" DESTINATION ${CMAKE_INSTALL_LIBDIR}/${folder})
  else()
    install(FILES "${PROJECT_BINARY_DIR}/${name}" DESTINATION ${CMAKE_INSTALL_LIBDIR}/${folder})
  endif()
endfunction()

if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(ROPEWALK_PC_PREFIX "@CMAKE_INSTALL_PREFIX@")
  if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}") # CMake exports the prefix of the configuration
    set(ROPEWALK_INCLUDES "set_target_properties(ropewalk::ropewalk PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES [[@CMAKE_INSTALL_PREFIX@/${CMAKE_INSTALL_INCLUDEDIR}]])")
  endif()
else()
  file(RELATIVE_PATH ROPEWALK_PC_UP "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" ROPEWALK_PC_UP "${ROPEWALK_PC_UP}")
  set(ROPEWALK_PC_PREFIX "\${pcfiledir}/${ROPEWALK_PC_UP}")
endif()
ropewalk_pc_folder(ROPEWALK_PC_LIBDIR "${CMAKE_INSTALL_LIBDIR}")
ropewalk_pc_folder(ROPEWALK_PC_INCLUDEDIR "${CMAKE_INSTALL_INCLUDEDIR}")
configure_file(cmake/ropewalk.pc.in ropewalk.pc @ONLY)
configure_package_config_file(cmake/ropewalk-config.cmake.in ropewalk-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/ropewalk)
write_basic_package_version_file(ropewalk-config-version.cmake 
  COMPATIBILITY ${ROPEWALK_COMPATIBILITY})
ropewalk_install_found(ropewalk.pc pkgconfig)
if(ROPEWALK_IO)
  configure_file(cmake/ropewalk-io.pc.in ropewalk-io.pc @ONLY)
  ropewalk_install_found(ropewalk-io.pc pkgconfig)
endif()
ropewalk_install_found(ropewalk-config.cmake cmake/ropewalk)
install(FILES "${PROJECT_BINARY_DIR}/ropewalk-config-version.cmake"
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/ropewalk)
