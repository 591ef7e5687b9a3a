# cmake -D INPUT=name.lua -D CONSTANT=kNameScript -D OUTPUT=name.cc -P embed_script.cmake
file(READ "${INPUT}" script)
file(WRITE "${OUTPUT}" "#include \"core/redis_scripts.h\"

namespace presence::core {

const std::string_view ${CONSTANT} = R\"lua(${script})lua\";

}  // namespace presence::core
")
