package salver.streams;

import java.util.Arrays;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/** The command line: pairs of {@code --name value}. */
final class Options {
    static final String HELP = """
            Scores the records of a topic into another with Kafka Streams, one record at a time.

            java -jar kafka-streams-score.jar --bootstrap HOST:PORT --from TOPIC --to TOPIC (--onnx FILE | --remote HOST:PORT --model NAME)

              --bootstrap LIST   brokers
              --from TOPIC       records of this topic, from its beginning; it must exist, and so must --to
              --to TOPIC         answers: the records with their field "prediction" filled
              --onnx FILE        score in this process with ONNX Runtime
              --remote ADDRESS   score by TensorFlow Serving's gRPC, one blocking call for each record
              --model NAME       the name of the remote model
              --input NAME       the input of the remote model (input_1)
              --output NAME      the output of the remote model (output)
              --shape N,N        the shape of one point as the remote model wants it (flat)
              --threads N        stream threads; each partition has a model or a connection of its own (1)
              --format FORM      text: all floats in one text, as published; array: lists of numbers (text)
              --mapper WHEN      each: an object mapper is made for each record, as published; once: for each thread (each)
              --guarantee WORD   at_least_once or exactly_once (at_least_once)
              --commit-ms N      the commit interval (Kafka's own: 30000, or 100 with exactly_once)
              --group NAME       the application's id (kafka-streams-score-TIME)
              --set KEY=VALUE    a further property of Kafka Streams; may be repeated

            Prints "ready" when all threads run. On SIGTERM it commits, prints one line of JSON and ends:
            {"records": N, "cpu_seconds": X}, both since "ready".
            """;

    private static final Set<String> KNOWN = Set.of(
            "bootstrap", "from", "to", "onnx", "remote", "model", "input", "output", "shape", "threads", "format", "mapper", "guarantee",
            "commit-ms", "group");

    private final Map<String, String> values = new HashMap<>();
    final Map<String, String> properties = new TreeMap<>();

    Options(String[] arguments) {
        for (int i = 0; i < arguments.length; i += 2) {
            if (!arguments[i].startsWith("--") || i + 1 == arguments.length) {
                throw new IllegalArgumentException("expected --name value, not " + arguments[i]);
            }
            String name = arguments[i].substring(2);
            String value = arguments[i + 1];
            if (name.equals("set")) {
                String[] pair = value.split("=", 2);
                if (pair.length != 2) {
                    throw new IllegalArgumentException("--set takes KEY=VALUE, not " + value);
                }
                properties.put(pair[0], pair[1]);
            } else if (KNOWN.contains(name)) {
                values.put(name, value);
            } else {
                throw new IllegalArgumentException("unknown option --" + name);
            }
        }
        if (has("onnx") == has("remote")) {
            throw new IllegalArgumentException("one of --onnx and --remote is needed");
        }
    }

    boolean has(String name) {
        return values.containsKey(name);
    }

    String needed(String name) {
        if (!has(name)) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return values.get(name);
    }

    String get(String name, String otherwise) {
        return values.getOrDefault(name, otherwise);
    }

    <E extends Enum<E>> E choice(Class<E> type, String name, E otherwise) {
        String value = get(name, otherwise.name()).toUpperCase(Locale.ROOT);
        try {
            return Enum.valueOf(type, value);
        } catch (IllegalArgumentException e) {
            String all = Arrays.toString(type.getEnumConstants()).toLowerCase(Locale.ROOT);
            throw new IllegalArgumentException("--" + name + " is one of " + all + ", not " + value, e);
        }
    }

    long[] shape() {
        return has("shape") ? Arrays.stream(get("shape", "").split(",")).mapToLong(Long::parseLong).toArray() : new long[0];
    }
}
