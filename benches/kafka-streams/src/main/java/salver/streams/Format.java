package salver.streams;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/** How the points lie in the JSON of a record. Both forms repeat the input in the output. */
enum Format {
    /** All floats in one text, with a comma after each: what the published benchmark sends. */
    TEXT {
        @Override
        List<List<Float>> read(JsonNode node, int rows, int columns) {
            String[] parts = node.textValue().split(",");
            List<List<Float>> points = new ArrayList<>();
            int at = 0;
            for (int row = 0; row < rows; row++) {
                List<Float> point = new ArrayList<>();
                for (int column = 0; column < columns; column++) {
                    point.add(Float.valueOf(parts[at++]));
                }
                points.add(point);
            }
            return points;
        }

        @Override
        void write(String field, List<List<Float>> points, JsonGenerator json) throws IOException {
            StringBuilder text = new StringBuilder();
            for (List<Float> point : points) {
                for (Float value : point) {
                    text.append(value).append(',');
                }
            }
            json.writeStringField(field, text.toString());
        }
    },

    /** A list of lists of numbers. */
    ARRAY {
        @Override
        List<List<Float>> read(JsonNode node, int rows, int columns) {
            List<List<Float>> points = new ArrayList<>();
            for (JsonNode row : node) {
                List<Float> point = new ArrayList<>();
                for (JsonNode value : row) {
                    point.add(value.floatValue());
                }
                points.add(point);
            }
            return points;
        }

        @Override
        void write(String field, List<List<Float>> points, JsonGenerator json) throws IOException {
            json.writeArrayFieldStart(field);
            for (List<Float> point : points) {
                json.writeStartArray();
                for (Float value : point) {
                    json.writeNumber(value);
                }
                json.writeEndArray();
            }
            json.writeEndArray();
        }
    };

    abstract List<List<Float>> read(JsonNode node, int rows, int columns);

    abstract void write(String field, List<List<Float>> points, JsonGenerator json) throws IOException;
}
