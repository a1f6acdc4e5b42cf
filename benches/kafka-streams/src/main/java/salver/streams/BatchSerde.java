package salver.streams;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.DeserializationContext;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.deser.std.StdDeserializer;
import com.fasterxml.jackson.databind.module.SimpleModule;
import com.fasterxml.jackson.databind.ser.std.StdSerializer;
import java.io.IOException;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/**
 * Batches as JSON: creationTimestamp, dataPointSz1, dataPointSz2, dataPoint, prediction. By the published method an object
 * mapper is made for each record read and for each record written; {@link Mapper#ONCE} makes one of each per thread.
 */
final class BatchSerde implements Serde<Batch> {
    /** When an object mapper is made. */
    enum Mapper { EACH, ONCE }

    private static final String CREATED = "creationTimestamp";
    private static final String ROWS = "dataPointSz1";
    private static final String COLUMNS = "dataPointSz2";
    private static final String POINTS = "dataPoint";
    private static final String PREDICTION = "prediction";

    private final Format format;
    private final Mapper when;
    private final ThreadLocal<ObjectMapper> reader;
    private final ThreadLocal<ObjectMapper> writer;

    BatchSerde(Format format, Mapper when) {
        this.format = format;
        this.when = when;
        reader = ThreadLocal.withInitial(this::newReader);
        writer = ThreadLocal.withInitial(this::newWriter);
    }

    @Override
    public Deserializer<Batch> deserializer() {
        return (topic, bytes) -> {
            try {
                ObjectMapper mapper = when == Mapper.EACH ? newReader() : reader.get();
                return mapper.readValue(bytes, Batch.class);
            } catch (IOException e) {
                throw new SerializationException(e);
            }
        };
    }

    @Override
    public Serializer<Batch> serializer() {
        return (topic, batch) -> {
            try {
                ObjectMapper mapper = when == Mapper.EACH ? newWriter() : writer.get();
                return mapper.writeValueAsBytes(batch);
            } catch (IOException e) {
                throw new SerializationException(e);
            }
        };
    }

    private ObjectMapper newReader() {
        SimpleModule module = new SimpleModule();
        module.addDeserializer(Batch.class, new Reader(format));
        return new ObjectMapper().registerModule(module);
    }

    private ObjectMapper newWriter() {
        SimpleModule module = new SimpleModule();
        module.addSerializer(Batch.class, new Writer(format));
        return new ObjectMapper().registerModule(module);
    }

    private static final class Reader extends StdDeserializer<Batch> {
        private final transient Format format;

        Reader(Format format) {
            super(Batch.class);
            this.format = format;
        }

        @Override
        public Batch deserialize(JsonParser parser, DeserializationContext context) throws IOException {
            JsonNode node = parser.getCodec().readTree(parser);
            int rows = node.get(ROWS).intValue();
            int columns = node.get(COLUMNS).intValue();
            return new Batch(node.get(CREATED).longValue(), format.read(node.get(POINTS), rows, columns));
        }
    }

    private static final class Writer extends StdSerializer<Batch> {
        private final transient Format format;

        Writer(Format format) {
            super(Batch.class);
            this.format = format;
        }

        @Override
        public void serialize(Batch batch, JsonGenerator json, SerializerProvider provider) throws IOException {
            json.writeStartObject();
            json.writeNumberField(CREATED, batch.created);
            json.writeNumberField(ROWS, batch.points.size());
            json.writeNumberField(COLUMNS, batch.points.get(0).size());
            format.write(POINTS, batch.points, json);
            if (batch.prediction == null) {
                json.writeNullField(PREDICTION);
            } else {
                format.write(PREDICTION, batch.prediction, json);
            }
            json.writeEndObject();
        }
    }
}
