# The libraries Xylem stands on, all from Debian packages (scripts/setup installs them).
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(LIBUV REQUIRED IMPORTED_TARGET libuv)
pkg_check_modules(EXPAT REQUIRED IMPORTED_TARGET expat)
pkg_check_modules(LMDB REQUIRED IMPORTED_TARGET lmdb)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c)
pkg_check_modules(LIBIDN REQUIRED IMPORTED_TARGET libidn)
pkg_check_modules(CARES REQUIRED IMPORTED_TARGET libcares)
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)

# Debian's mbedTLS package comes without pkg-config files.
function(xylem_find_library target header library)
  find_path(${target}_INCLUDE ${header} REQUIRED)
  find_library(${target}_LIBRARY ${library} REQUIRED)
  add_library(${target} INTERFACE)
  target_include_directories(${target} SYSTEM INTERFACE ${${target}_INCLUDE})
  target_link_libraries(${target} INTERFACE ${${target}_LIBRARY})
endfunction()
xylem_find_library(mbedcrypto mbedtls/ssl.h mbedcrypto)
xylem_find_library(mbedx509 mbedtls/ssl.h mbedx509)
xylem_find_library(mbedtls mbedtls/ssl.h mbedtls)
target_link_libraries(mbedtls INTERFACE mbedx509 mbedcrypto)

# TLS itself; hashes and SCRAM stay with mbedTLS whichever is chosen.
if(XYLEM_TLS STREQUAL "openssl")
  pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET libssl>=3.0 libcrypto>=3.0)
  set(XYLEM_TLS_LIBRARIES PkgConfig::OPENSSL mbedcrypto)
elseif(XYLEM_TLS STREQUAL "mbedtls")
  set(XYLEM_TLS_LIBRARIES mbedtls)
else()
  message(FATAL_ERROR "XYLEM_TLS is mbedtls or openssl, not '${XYLEM_TLS}'")
endif()

# Old expats cannot put off reparsing a token that is not complete yet; core/xml/parser.c needs to say when they may.
include(CheckSymbolExists)
set(CMAKE_REQUIRED_LIBRARIES PkgConfig::EXPAT)
check_symbol_exists(XML_SetReparseDeferralEnabled expat.h XYLEM_EXPAT_DEFERS)
unset(CMAKE_REQUIRED_LIBRARIES)
if(NOT XYLEM_EXPAT_DEFERS)
  message(FATAL_ERROR "this libexpat (${EXPAT_VERSION}) has no XML_SetReparseDeferralEnabled: "
                      "install 2.6.0 or newer, or Debian's 2.5.0-1+deb12u2 or newer (scripts/setup does)")
endif()

find_program(PROTOC_C protoc-c REQUIRED)
