# Tests of files and of the program: config.json, safetensors, `ropewalk` on its command line.
function(ropewalk_add_io_test name)
  ropewalk_add_test(${name} ropewalk-io PkgConfig::JANSSON)
  target_sources(${name} PRIVATE harness/io_support.c)
  target_compile_definitions(${name} PRIVATE _GNU_SOURCE _FILE_OFFSET_BITS=64
                             RWT_DATA="${CMAKE_CURRENT_SOURCE_DIR}" ${ARGN})
endfunction()

foreach(name test_safetensors test_large_files)
  ropewalk_add_io_test(${name})
  ropewalk_register(${name} io cpu)
endforeach()

foreach(name test_model_attention test_model_config test_model_json test_model_layers
        test_model_types test_model_zoo)
  ropewalk_add_io_test(${name})
  target_sources(${name} PRIVATE harness/model_support.c)
  ropewalk_register(${name} io cpu)
endforeach()

# Allocations that fail: the program's in one that replaces functions of the shared libraries.
if(BUILD_SHARED_LIBS)
  ropewalk_add_io_test(test_out_of_memory)
  target_sources(test_out_of_memory PRIVATE harness/failing_allocator.c)
  target_link_libraries(test_out_of_memory PRIVATE ${CMAKE_DL_LIBS})
  # The runtime of a real GPU allocates for itself, and need not fail where one of its allocations does.
  if(TARGET ropewalk-hip AND NOT ROPEWALK_HIP_PLATFORM STREQUAL emulated)
    ropewalk_register(test_out_of_memory cpu cpu ROPEWALK_BACKEND=cpu)
  else()
    ropewalk_register_backends(test_out_of_memory)
  endif()
endif()
# Not with sanitizers, whose libraries must be the first, nor through an emulator, which would itself
# load the allocator.
if(ROPEWALK_CLI AND NOT ROPEWALK_SANITIZE AND NOT CMAKE_CROSSCOMPILING)
  add_library(failing-allocator MODULE harness/failing_allocator.c)
  target_compile_definitions(failing-allocator PRIVATE _GNU_SOURCE)
  target_include_directories(failing-allocator PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(failing-allocator PRIVATE ropewalk-flags PkgConfig::JANSSON
                        ${CMAKE_DL_LIBS})
  ropewalk_add_io_test(test_cli_out_of_memory RWT_PROGRAM="$<TARGET_FILE:ropewalk-program>"
                       RWT_ALLOCATOR="$<TARGET_FILE:failing-allocator>")
  add_dependencies(test_cli_out_of_memory ropewalk-program failing-allocator)
  ropewalk_register(test_cli_out_of_memory cpu cpu)
endif()

if(ROPEWALK_CLI)
  # The first arguments of a command that runs the program.
  set(program ${CMAKE_CROSSCOMPILING_EMULATOR} $<TARGET_FILE:ropewalk-program>)
  list(JOIN program "\", \"" program)
  foreach(name test_cli test_cli_append test_cli_attend test_cli_attend_errors test_cli_dequantize test_cli_heads
          test_cli_mask test_cli_models test_cli_rotate)
    ropewalk_add_io_test(${name} "RWT_PROGRAM=\"${program}\"")
    add_dependencies(${name} ropewalk-program)
    ropewalk_register_backends(${name})
  endforeach()
  target_sources(test_cli_rotate PRIVATE ${PROJECT_SOURCE_DIR}/src/cli/array_compare.c)
  target_include_directories(test_cli_rotate PRIVATE ${PROJECT_SOURCE_DIR}/src/cli
                             ${PROJECT_SOURCE_DIR}/src)
endif()
