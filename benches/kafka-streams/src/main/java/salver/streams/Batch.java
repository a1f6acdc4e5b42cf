package salver.streams;

import java.util.List;

/**
 * The content of a record: data points with the time of their making, and what a model says of them once it was asked.
 * Lists of boxed floats, as the benchmark that this follows has them.
 */
final class Batch {
    final long created;
    final List<List<Float>> points;
    List<List<Float>> prediction;

    Batch(long created, List<List<Float>> points) {
        this.created = created;
        this.points = points;
    }
}
