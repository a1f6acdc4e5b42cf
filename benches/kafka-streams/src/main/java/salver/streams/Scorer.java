package salver.streams;

import java.util.ArrayList;
import java.util.List;

/** A model, here or behind a connection. Each task, that is each partition, has its own. */
interface Scorer extends AutoCloseable {
    /** What the model says of each point. Blocks until it is there. */
    List<List<Float>> score(List<List<Float>> points) throws Exception;

    @Override
    void close();

    /** Rows of a flat answer. */
    static List<List<Float>> rows(float[] values, int n) {
        List<List<Float>> rows = new ArrayList<>(n);
        int width = values.length / n;
        for (int row = 0; row < n; row++) {
            List<Float> made = new ArrayList<>(width);
            for (int column = 0; column < width; column++) {
                made.add(values[row * width + column]);
            }
            rows.add(made);
        }
        return rows;
    }

    /** All points one after the other. */
    static float[] flat(List<List<Float>> points) {
        float[] values = new float[points.stream().mapToInt(List::size).sum()];
        int at = 0;
        for (List<Float> point : points) {
            for (Float value : point) {
                values[at++] = value;
            }
        }
        return values;
    }
}
