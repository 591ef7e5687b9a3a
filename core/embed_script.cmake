# cmake -D INPUT=presence_transition.lua -D OUTPUT=presence_transition.cc -P embed_script.cmake
file(READ "${INPUT}" script)
file(WRITE "${OUTPUT}" "#include \"core/presence_transition.h\"

namespace presence::core {

const std::string_view kPresenceTransitionScript = R\"lua(${script})lua\";

}  // namespace presence::core
")
